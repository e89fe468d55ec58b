#!/usr/bin/env python3
"""Writes instants.jsonl: how Python 3.11 reads texts as points in time, after the ancestor's own preparation of them.

Each line: [text, null] where it is refused, else [text, wall clock in microseconds since 1970, offset or null].
"""
import datetime
import json
import random
import sys

assert sys.version_info[:2] == (3, 11), "the ancestor's interpreter is 3.11"
random.seed(20240301)
EPOCH = datetime.datetime(1970, 1, 1)
MICRO = datetime.timedelta(microseconds=1)

DATES = [
    "2024-01-15", "20240115", "2024-W03-1", "2024W031", "2024-W03", "2024W03", "0001-01-01", "9999-12-31", "2024-02-29",
    "2023-02-29", "2024-1-15", "2024-015", "2024015", "2024-W53-1", "2020-W53-7", "2020W53", "9999-W52-5", "9999-W52-6",
    "0001-W01-1", "0000-01-01", "0000-W01-1", "2024-W00-1", "2024-W01-0", "2024-W01-8", "2024-13-01", "2024-00-01",
    "2024-01-00", "2024-01-32", "2024-04-31", "1900-02-29", "2000-02-29", "2024-0115", "202401-15", "2024W03-1",
    "2024-W031", "24-01-15", "+2024-01-15", "-2024-01-15", "2024/01/15", "2024-01", "2024", "", "2024-w03-1",
    "\u0662\u0660\u0662\u0664-01-15", "2015-W53-4", "2026-W53-7", "1970-01-01", "1969-12-31", "12024-01-15",
]
SEPARATORS = ["T", " ", "t", "_", "-", ":", "W", "1", "+", "Z", "\u00e9", "\u3000", "\U0001d11e", "", "  ", "\0", "\n"]
TIMES = [
    "09", "09:30", "09:30:15", "0930", "093015", "09:30:15.5", "09:30:15,5", "09:30:15.123456", "09:30:15.1234567",
    "09:30:15.999999999", "093015.123", "093015,123456789", "24:00", "24:00:00", "23:59:60", "23:60", "23:59:59.9999999",
    "9:30", "09:3", "09:30:1", "09:3015", "0930:15", "09:30:15:123456", "09:30:15.", "09:30.5", "09.5", "09:30:",
    "09:", "0930151", "0930151234567", "09:30:15.12x", "09:30:15.123456x", "09:30:15 ", " 09:30", "-09:30", "9", "093",
    "09-30", "09:30:15.\u0661", "", "00:00:00.000001", "0930.5", "093015:5", "09:30,15", "09:30:15.1.2",
]
ZONES = [
    "", "Z", "z", "+00:00", "+02:00", "-02:00", "+0200", "+02", "-00:00", "+02:00:30", "+020030", "+02:00:30.5",
    "+23:59", "+24:00", "-23:59:59.999999", "+00:99", "+99", "+2", "+02:0", "+02:", "+", "-", "Z+00:00", "+00:00Z", "ZZ",
    " +02:00", " Z", "+02:00 ", "+02:00x", "UTC", "+02:00:30.1234567", "+14:00", "-12:00", "+-1:00", "+02.5", "+0260",
    "+23:59:60", "Z\0", "[UTC]",
]
WHOLE = [
    "now", "1705311000", "2024-01-15T", "2024-01-15Z", "2024-01-15T09:30:15ZZ", "2024-W01-0000", "2024-W01-00:00",
    "2024W01100", "2024W011000", "2024W01T10", "2024W011T10", "2024W0110:00", "2024-W01-1-10", "2024-W01-1",
    " 2024-01-15T09:30Z ", "\t2024-01-15\n", "\x1c2024-01-15\x1f", "\u00a02024-01-15\u3000", "\ufeff2024-01-15",
    "\u200b2024-01-15", "\u180e2024-01-15", "\x852024-01-15\x85", "2024-01-15 Z", "20240115Z", "2024W03Z", "2024-01Z",
    "Mon, 15 Jan 2024 09:30:15 GMT", "2024-01-15T09:30:15+02:00+02:00", "2024-01-15T09:30:15-02:00-02:00", "Z", "0", "T",
    "2024-01-15T09:30:15.Z", "2024-01-15T09:30:Z", "2024-01-15T09:Z", "2024-01-15T09.Z", "2024-01-15\u00e9", "2024-01-1\u00e9",
    "2024-03-31T02:30:00", "2024-01-15T09:30:15.123456xyzZ", "2024-01-15T09:30:15+00:00:00.000001", "2024-01-15T\0",
    "2024-01-15T09:30\0", "2024-01-15T09:30\0Z", "2024-01-15T09:30:15.1\0", "2024-W03-\u00e9", "2024-01-15TT09:30",
]


def verdict(text):
    prepared = text.strip()
    if prepared.endswith("Z"):
        prepared = prepared[:-1] + "+00:00"
    try:
        moment = datetime.datetime.fromisoformat(prepared)
    except ValueError:
        return [text, None]
    wall = (moment.replace(tzinfo=None) - EPOCH) // MICRO
    offset = moment.utcoffset()
    return [text, wall, None if offset is None else offset // MICRO]


def mutate(text):
    letters = list(text)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(letters) + 1)
        change = random.choice(["insert", "delete", "replace"])
        if change == "insert":
            letters.insert(place, random.choice("0123456789-:.,+WZT \u00e9"))
        elif letters and place < len(letters):
            letters[place : place + 1] = [] if change == "delete" else [random.choice("0123456789-:.,+WZT \u00e9")]
    return "".join(letters)


texts = dict.fromkeys(WHOLE)
texts.update(dict.fromkeys(DATES))
texts.update(dict.fromkeys("2024-01-15T09:30:15" + zone for zone in ZONES))
texts.update(dict.fromkeys("2024-01-15T" + time + zone for time in TIMES for zone in ("", "Z", "-0230")))
texts.update(dict.fromkeys("2024-01-15" + separator + "09:30" for separator in SEPARATORS))
for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 900):
    # Mostly parts that are right by themselves, so that what is wrong is how they meet.
    likely = random.random() < 0.7
    time, zone = (TIMES[:12], ZONES[:13]) if likely else (TIMES, ZONES)
    text = random.choice(DATES[:8]) + random.choice(SEPARATORS) + random.choice(time) + random.choice(zone)
    texts[text] = texts[mutate(text)] = None

with open(sys.argv[1] if len(sys.argv) > 1 else "instants.jsonl", "w") as table:
    for text in texts:
        table.write(json.dumps(verdict(text)) + "\n")
