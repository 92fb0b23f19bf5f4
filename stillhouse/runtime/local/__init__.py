"""Workers that are processes of this machine, or forwarded to it: both sides."""
