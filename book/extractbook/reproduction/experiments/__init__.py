"""What is measured on a setting, one kind of measurement a module."""
