"""What differs per task, each in its own module; the loop is the same for all."""
