"""Who is who: keys and teams of the config file and of the store, as one. Blocks; used by workers and the pipeline."""

from __future__ import annotations

import msgspec

from otelgw.config.settings import Keys
from otelgw.keys.schema import Team
from otelgw.keys.store import Found, Store, key_subject, team_subject

__all__ = ["Directory"]


class Directory:
    """The config file's keys and teams come first: what is there cannot be changed over HTTP."""

    def __init__(self, settings: Keys, store: Store) -> None:
        self.store = store
        self.keys = {key.hash: key for key in settings.keys}
        self.teams = {team.id: team for team in settings.teams}
        self._team_logging = {team.id: team for team in settings.team_logging}

    def find(self, key_hash: str) -> Found | None:
        """Return a key with its team and what has been spent; None if nobody knows it.

        Raises:
            StoreError: the store cannot be asked.
        """
        own = self.keys.get(key_hash)
        if own is None:
            found = self.store.find(key_hash)
            if found is None:
                return None
            team = self.teams.get(found.key.team_id, found.team)
            return found._replace(team=self._completed(team, found.key.team_id))
        team = self.team(own.team_id) if own.team_id else None
        limited = [key_subject(own.hash)] if own.quota.budget is not None else []
        limited += [team_subject(team.id)] if team is not None and team.quota.budget is not None else []
        return Found(own, team, self.store.spent(limited) if limited else {})

    def team(self, team_id: str) -> Team | None:
        """Return a team.

        Raises:
            StoreError: the store cannot be asked.
        """
        return self._completed(self.teams.get(team_id) or self.store.team(team_id), team_id)

    def _completed(self, team: Team | None, team_id: str) -> Team | None:
        """Return a team with the destinations that ``default_team_settings`` gives it, where it has none of its own."""
        default = self._team_logging.get(team_id)
        if team is None or default is None or team.logging:
            return team or default
        return msgspec.structs.replace(team, logging=default.logging)
