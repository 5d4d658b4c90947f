"""Pure, synchronous decisions. Time comes in as `now` (trio clock, seconds); nothing here waits."""
