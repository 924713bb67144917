"""Running items: claims on chunks, the processes that operations run in, and what comes of them."""
