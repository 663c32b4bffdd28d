"""What runs on a build host, in the master's process or in a worker on the host."""
