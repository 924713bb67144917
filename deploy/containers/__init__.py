"""What the images are built with, and what the stack in containers needs beside them."""
