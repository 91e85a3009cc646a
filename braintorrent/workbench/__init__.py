"""One lab by itself: what a person does beside the running node. Nothing here leaves the machine."""
