"""The hub. An event goes through three files, without a task, a queue or an await in between:

`line.py`      bytes of the Redis socket; hiredis takes them apart, and the room of the channel is called
`rooms.py`     whether the event follows the last one without a gap; then it is framed, once for all
`audience.py`  what came in this turn is written to every socket of the task, in one write each

For a socket that does not take it, `writer.py` keeps or conflates it, until the transport has drained. Around them:
`link.py` keeps the Redis connection up, `connections.py` opens and closes rooms, `crowd.py` serves very large ones in
slices, `wire.py` is the WebSocket protocol under the writer, `websocket.py` and `session.py` what a socket may ask for.
`sse.py` and `polling.py` are fed by the same rooms, through a `mailbox.py`.
"""
