"""The program inside the job: standard library only, Python 3.8 or newer, sent with the job."""
