"""Does multicast DNS work here? A record with a random name is announced on an interface and looked for on it.

The name is no peer id, so that no peer takes it for one. What this cannot tell: whether switches and access
points between the labs carry multicast on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from braintorrent.network.discovery import SERVICE


async def echoes(hosts: Iterable[str], seconds: float) -> dict[str, str]:
    """Address of an interface -> "" if a record announced there comes back to another socket in time, else why not."""
    hosts = list(dict.fromkeys(hosts))
    return dict(zip(hosts, await asyncio.gather(*(_echo(host, seconds) for host in hosts)), strict=True))


async def _echo(host: str, seconds: float) -> str:
    record, heard = f"probe-{secrets.token_hex(8)}.{SERVICE}", asyncio.Event()

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if name.casefold() == record:
            heard.set()

    version = IPVersion.V6Only if ":" in host else IPVersion.V4Only
    speaker = listener = None
    try:
        listener = AsyncZeroconf(interfaces=[host], ip_version=version)
        browser = AsyncServiceBrowser(listener.zeroconf, SERVICE, handlers=[changed])
        speaker = AsyncZeroconf(interfaces=[host], ip_version=version)
        info = AsyncServiceInfo(
            SERVICE, record, port=9, server=f"{secrets.token_hex(8)}.local.", parsed_addresses=[host]
        )
        async with asyncio.timeout(seconds):
            await (await speaker.async_register_service(info, cooperating_responders=True))
            await heard.wait()
        await browser.async_cancel()
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except (OSError, ZeroconfError) as error:
        return str(error) or type(error).__name__
    finally:
        for zeroconf in (speaker, listener):
            if zeroconf is not None:
                await zeroconf.async_close()
    return ""
