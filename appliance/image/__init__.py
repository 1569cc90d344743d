"""Plan → bootable image. Comes with the image issue; nothing here yet."""
