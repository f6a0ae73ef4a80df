"""Points to processes of this machine: the queue, claims, the driver, slots, the display."""
