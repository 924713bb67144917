"""What enters the gateway goes through the files that the README names, and through no others."""

from __future__ import annotations

from chassis.deadlines import Deadline
from contracts import stocks
from contracts.topology import STOCK_DATA
from support import pushes, ways
from support.gateway_stack import House, OpenTalk, RunningGateway
from support.waiting import until

REQUEST = ways.passing("any request", "chassis/", "gateway/")


async def test_a_mail_enters_the_files_that_the_readme_names(listener: RunningGateway, house: House) -> None:
    way = ways.passing("a mail", "gateway/") | {"chassis/outbox.py"} | REQUEST
    mail = {"to": ["ann@example.com"], "subject": "Hello", "text": "How are you?"}
    with ways.followed(way) as entered:
        answer = await listener.api.post("/v1/emails", json=mail)
        assert answer.status_code == 202
        await house.take("email.send")
    assert way - entered == set()
    assert ways.unnamed(entered, "any request", "a mail") == []


async def test_an_upload_enters_the_files_that_the_readme_names(
    listener: RunningGateway, house: House
) -> None:
    way = ways.passing("an upload", "gateway/") | REQUEST
    lines = {"content-type": "application/x-ndjson"}
    with ways.followed(way) as entered:
        answer = await listener.api.post(
            "/v1/batches?operation=echo", content=b'{"payload":1}\n' * 500, headers=lines
        )
        assert answer.status_code == 202
        await house.take("batch-processor.intake", 2)
    assert way - entered == set()
    assert ways.unnamed(entered, "any request", "an upload") == []


async def test_a_quote_enters_the_files_that_the_readme_names(listener: RunningGateway, house: House) -> None:
    async def answer(request: stocks.GetQuotes, _: Deadline) -> stocks.Quotes:
        found = {"symbol": request.symbols[0], "price": "1", "as_of": pushes.NOW, "source": "double"}
        return stocks.Quotes(quotes=[stocks.Quote.model_validate(found)], errors=[])

    double = await house.double(STOCK_DATA, {stocks.GetQuotes: answer})
    way = ways.passing("a quote", "gateway/") | {"chassis/broker/rpc.py"} | REQUEST
    with ways.followed(way) as entered:
        assert (await listener.api.get("/v1/stocks/WAYS")).status_code == 200
    await double.close()
    assert way - entered == set()
    assert ways.unnamed(entered, "any request", "a quote") == []


async def test_a_tick_enters_the_files_that_the_readme_names(
    listener: RunningGateway, house: House, talk: OpenTalk
) -> None:
    # Without the edge, which also takes the messages of other features.
    way = ways.passing("a tick", "gateway/") - {"gateway/consumers.py"}
    await house.publish([pushes.ticks("WAYS", 1)])
    await until(lambda: listener.gateway.resources.book.last("WAYS"))
    async with talk(listener) as client:
        await client.ask(subscribe={"channel": "quotes:WAYS"})
        with ways.followed(way) as entered:
            await house.publish([pushes.ticks("WAYS", 2)])
            while (await client.push()).get("offset") != 2:
                pass
            await until(lambda: way <= entered, what=lambda: str(way - entered))
    assert ways.unnamed(entered, "a tick") == []
