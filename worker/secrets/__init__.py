"""What secrets and configs hold, in this node's memory and in the files its tasks see. Belongs here: the tmpfs they
live on. Does not: which task needs which (manager/dispatcher), and mounting them into a container (agent_runtime)."""
