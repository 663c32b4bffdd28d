"""Where jobs run: what every engine promises, what the master does for a job whoever builds it, and the engines."""
