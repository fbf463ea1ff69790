"""`sg3 view`: networks in the browser.

    page (static/) -- websocket, HTTP --> socket, api --> session --> engine: the one thread that touches networks
                                                                        pictures: state -> picture
                                                                        catalogue: the networks that may be opened

`state` says what a picture shows; `guard` who may ask. `docs/viewer.md` has the protocol.
"""
