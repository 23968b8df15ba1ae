"""Step 6: deciding on the champion, and the record of every decision."""
