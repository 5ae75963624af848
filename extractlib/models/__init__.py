"""Networks, their training, and the models that are made of them."""
