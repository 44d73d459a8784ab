"""The kit for GPU nodes without internet: `make gpu-kit` packs it (`pack`), `run` in it proves what a card shows.

| module | where it runs |
|---|---|
| `pack` | where there is internet: packages, project and a toy model into parts |
| `parts`, `unpack` | on the node, with any Python 3: parts joined and checked, a virtual environment over its torch |
| `steps`, `runner`, `page` | on the node, in that environment: steps with time limits, the report, its page |
| `checks/` | the steps that are no tests: a program each, which writes its figures |
"""
