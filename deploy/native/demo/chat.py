"""Chat between two connections."""

from __future__ import annotations

import json

from native.demo.tour import Tour, frame


async def lobby(tour: Tour) -> None:
    """One connection sends messages, another receives them in order."""
    async with tour.socket() as hearer, tour.socket() as speaker:
        await hearer.send(json.dumps({"id": 2, "subscribe": {"channel": "chat:lobby"}}))
        await frame(hearer, "subscribe")
        for number in range(3):
            line = {"channel": "chat:lobby", "data": {"text": f"hello {number} from tour {tour.run}"}}
            await speaker.send(json.dumps({"id": 10 + number, "publish": line}))
        for _ in range(3):
            push = await frame(hearer, "push")
            tour.say(f"heard: {push['pub']['data']['text']}")


async def private_room(tour: Tour) -> None:
    """A room that is visible only to its members; all of them see who is present."""
    name = f"tour-{tour.run}"
    await tour.post("/v1/rooms", {"name": name, "private": True})
    channel = {"channel": f"chat:{name}"}
    async with tour.socket() as connection:
        await connection.send(json.dumps({"id": 2, "subscribe": channel}))
        await frame(connection, "subscribe")
        await connection.send(json.dumps({"id": 3, "publish": {**channel, "data": {"text": "among us"}}}))
        push = await frame(connection, "push")
        while "pub" not in push:
            push = await frame(connection, "push")
        await connection.send(json.dumps({"id": 4, "presence": channel}))
        present = (await frame(connection, "presence"))["presence"]
    tour.say(f"heard: {push['pub']['data']['text']}, with {len(present)} present")
