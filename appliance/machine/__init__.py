"""What runs as root when an image boots: the files of the setup partition become the machine."""
