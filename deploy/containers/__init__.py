"""The tools with which the images are built, and the files that the stack in containers needs."""
