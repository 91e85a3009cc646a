"""What peers say, and when. Pure: no clock, socket, disk, asyncio, torch, or global random."""
