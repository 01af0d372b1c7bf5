"""What people see: model objects → rows → tables, templates, JSON (pure; the moment `now` is handed in)."""
