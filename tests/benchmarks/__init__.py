"""Programs that measure, side by side with what they are compared to; not tests."""
