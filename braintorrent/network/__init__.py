"""Peers on the wire: who may be there (discovery), the channel (TLS), what is said (wire), both ends of it.

    limits     every cap, with reason and unit
    address    "host:port" and back
    tls        certificates and contexts: a peer is its key
    wire       Hello, Ask, Tell as bytes, and a strict way back
    server     opens and closes; what is said is in answering, through Handlers, its sockets in listener and
               connection, who may stay in callers, how fast in buckets, who misbehaves in conduct
    client     says hello, asks, fetches into a Sink; one remote for each peer it calls, body for large answers
    dialling   whom it may call at all
    discovery  who may be there, by mDNS

Names are imported from these modules; this one stays empty so that nothing loads aiohttp by accident.
"""
