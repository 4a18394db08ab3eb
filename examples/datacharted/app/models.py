"""What DataCharted keeps: users and their charts. Each method that writes has committed when it returns."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import JSON, ForeignKey, String, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.security import check_password_hash, generate_password_hash

from .database import db
from .input import checked_numbers, checked_password, checked_text

CHARTS_ON_A_PAGE = 50
LARGEST_ID = 2**63 - 1


class UsernameTaken(Exception):
    """Somebody else has this username already."""


class User(db.Model):
    """A person with a unique name and a password, of which only a salted hash is kept."""

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(80), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))

    @classmethod
    def register(cls, username: object, password: object) -> User:
        """A new user. Raises BadInput or UsernameTaken."""
        user = cls(
            username=checked_text(username, name="username", longest=80),
            password_hash=generate_password_hash(checked_password(password)),
        )
        db.session.add(user)
        try:
            db.session.commit()
        except IntegrityError as error:
            db.session.rollback()
            raise UsernameTaken from error
        return user

    @classmethod
    def with_password(cls, username: object, password: object) -> User | None:
        """The user of that name, if the password is theirs. Raises BadInput."""
        name = checked_text(username, name="username", longest=80)
        password = checked_password(password)
        user = db.session.scalar(select(cls).where(cls.username == name))
        return user if user and check_password_hash(user.password_hash, password) else None


class Chart(db.Model):
    """Numbers under a title, owned by the user who made it; `created` is in UTC."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("user.id"), index=True)
    title: Mapped[str] = mapped_column(String(120))
    numbers: Mapped[list[float]] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC).replace(tzinfo=None))

    @classmethod
    def create(cls, owner: User, title: object, numbers: object) -> Chart:
        """A new chart of `owner`. Raises BadInput."""
        chart = cls(
            owner_id=owner.id,
            title=checked_text(title, name="title", longest=120),
            numbers=checked_numbers(numbers),
        )
        db.session.add(chart)
        db.session.commit()
        return chart

    @classmethod
    def newest_of(cls, owner: User, *, before: int = LARGEST_ID) -> list[Chart]:
        """Up to CHARTS_ON_A_PAGE charts of `owner` with an id below `before`, newest first."""
        mine = select(cls).where(cls.owner_id == owner.id, cls.id < before)
        return list(db.session.scalars(mine.order_by(cls.id.desc()).limit(CHARTS_ON_A_PAGE)))
