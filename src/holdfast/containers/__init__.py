"""The client of a container engine, Docker or Podman, and what Holdfast marks containers with."""
