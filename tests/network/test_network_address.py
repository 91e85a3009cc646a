"""Addresses: what people write, what a peer may claim, and what getaddrinfo must never see."""

import contextlib
import socket

import pytest

from braintorrent.network.address import Address, own_addresses, parse_address


@pytest.mark.parametrize("text", ["127.0.0.1:80", "lab-a.example.org:47100", "[fd00::7]:1", "localhost:65535"])
def test_what_people_write_comes_back(text):
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    ["a..b:80", f"{'a' * 64}.org:80", "-a:80", "a-:80", "host", "host:65536", "[::g]:1", "h\n:1", "", ":80", "é:80"],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_address(text)


def test_no_accepted_name_makes_the_resolver_raise_anything_but_oserror():
    for text in (f"{'a' * 63}.{'b' * 40}:80", "xn--a.invalid:80", "0:80", "1.2.3:80"):
        address = parse_address(text)
        with contextlib.suppress(OSError):
            socket.getaddrinfo(*address)


def test_a_wildcard_listener_names_real_addresses():
    for address in own_addresses(Address("0.0.0.0", 47100)):
        assert parse_address(address).port == 47100
        assert not address.startswith("0.0.0.0")
