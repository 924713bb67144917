"""The tools that build the images, and the files that the stack in containers needs."""
