"""How machines become clusters: the lab, virtual machines, systemd units, clouds, examples."""
