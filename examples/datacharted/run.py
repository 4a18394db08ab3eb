"""What a WSGI server loads: `gunicorn run:app`; `python3 run.py` serves on a developer's machine."""

from app import create_app

app = create_app()

if __name__ == "__main__":
    app.run()
