"""What is measured in a setup, with one kind of measurement per module."""
