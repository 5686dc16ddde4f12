"""What the commands do: each module is one story, told in calls of the core."""
