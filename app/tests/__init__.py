"""The tests of MonkTalk."""
