"""Declaration → bootable image: built, booted and judged, compared, flashed."""
