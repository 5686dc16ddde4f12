"""The workflows of the commands, one module each: a sequence of calls to the core."""
