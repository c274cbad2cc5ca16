"""Parts of the phantom: anatomy, how it grows, and how an exposure shows it."""
