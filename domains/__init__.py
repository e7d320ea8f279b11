"""What a specialty knows: its files, its pictures, its words. One folder a domain; `formats` reads what they share."""
