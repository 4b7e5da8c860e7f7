"""Audits: every check over a prompt log or a folder of images, resumable, on one machine or a Ray cluster.

    job = PromptJob(lambda: (Guard(pipe, calibration), 4))
    run = Audit(Prompts(Path("log.jsonl")), job, Path("out"))
    with open_engine("local", job) as engine:
        for done in run.steps(engine):
            print(done, "of", run.total)
    run.finish()
    write_report(run.out, pipe=pipe, calibration=calibration)

`cryptomnesia audit` does just that. Data flow one way: inputs -> run -> engine (workers) -> run -> shards -> report.
"""
