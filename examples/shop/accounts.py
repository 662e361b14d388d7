"""Signing in: passwords, sessions, and links to choose a new password."""

import hashlib
import hmac
import secrets
import time

ROUNDS = 600_000
LINK_SECONDS = 60 * 60
SESSION_SECONDS = 14 * 24 * 60 * 60
TRIES_PER_HOUR = 10


def hash_password(password: str, salt: bytes | None = None) -> str:
    salt = salt or secrets.token_bytes(16)
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ROUNDS)
    return f"{salt.hex()}${digest.hex()}"


def check_password(password: str, stored: str) -> bool:
    """Compare in constant time, so that the time taken tells nothing."""
    salt = bytes.fromhex(stored.partition("$")[0])
    return hmac.compare_digest(hash_password(password, salt), stored)


def reset_link(mail: str, secret: bytes, now: float | None = None) -> str:
    """A link that is good for one hour and for one mail address."""
    expires = int((now or time.time()) + LINK_SECONDS)
    return f"https://shop.example/reset?mail={mail}&until={expires}&sign={_sign(mail, expires, secret)}"


def check_link(mail: str, expires: int, sign: str, secret: bytes, now: float | None = None) -> bool:
    return (now or time.time()) < expires and hmac.compare_digest(sign, _sign(mail, expires, secret))


def too_many_tries(tries: list[float], now: float) -> bool:
    """Whether somebody guesses passwords: more than ten wrong ones within an hour."""
    return sum(now - moment < 3600 for moment in tries) > TRIES_PER_HOUR


def _sign(mail: str, expires: int, secret: bytes) -> str:
    return hmac.new(secret, f"{mail}:{expires}".encode(), hashlib.sha256).hexdigest()
