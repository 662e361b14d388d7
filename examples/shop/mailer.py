"""Letters wait in a table until a worker sends them."""

import logging
import smtplib
import sqlite3
from email.message import EmailMessage

LOG = logging.getLogger("shop.mailer")
BATCH = 50
MAX_ATTEMPTS = 6


def enqueue(database: sqlite3.Connection, recipient: str, subject: str, text: str) -> None:
    with database:
        database.execute(
            "INSERT INTO letters (recipient, subject, text, attempts) VALUES (?, ?, ?, 0)",
            (recipient, subject, text),
        )


def send_waiting(database: sqlite3.Connection, server: smtplib.SMTP) -> int:
    """Send what waits, oldest first. A letter that fails stays, and must not stop the others."""
    rows = database.execute(
        "SELECT id, recipient, subject, text FROM letters WHERE attempts < ? ORDER BY id LIMIT ?",
        (MAX_ATTEMPTS, BATCH),
    ).fetchall()
    sent = 0
    for number, recipient, subject, text in rows:
        letter = EmailMessage()
        letter["From"] = "hello@linden.example"
        letter["To"] = recipient
        letter["Subject"] = subject
        letter.set_content(text)
        try:
            server.send_message(letter)
        except smtplib.SMTPException:
            LOG.exception("letter %d could not be sent", number)
            with database:
                database.execute("UPDATE letters SET attempts = attempts + 1 WHERE id = ?", (number,))
        else:
            with database:
                database.execute("DELETE FROM letters WHERE id = ?", (number,))
            sent += 1
    return sent
