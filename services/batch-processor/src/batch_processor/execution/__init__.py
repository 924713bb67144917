"""Running items: claims on chunks, the processes in which operations run, and their reports."""
