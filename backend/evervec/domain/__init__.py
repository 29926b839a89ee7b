"""The pure room: no await on the outside world, no SQL, no clock."""
