"""The names of keys in Redis, and who removes what they name."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Keys(NamedTuple):
    """The names of a model's keys. The braces keep them in one slot of a cluster, as its scripts need."""

    model: str

    @classmethod
    def beside(cls, key: str) -> Keys:
        """Returns the names of the keys of the model that one belongs to."""
        return cls(key.partition("{")[2].partition("}")[0])

    @property
    def prefix(self) -> str:
        """What the names of all its keys begin with."""
        return f"rollout:{{{self.model}}}:"

    @property
    def split(self) -> str:
        """The split, JSON."""
        return f"rollout:{{{self.model}}}:split"

    @property
    def split_history(self) -> str:
        """Every revision of the split, a list of JSON, oldest first. Owned by the model's admins."""
        return f"rollout:{{{self.model}}}:split:history"

    @property
    def quarantine(self) -> str:
        """Versions that were rolled back, a hash of JSON by digest. Owned by the model's admins."""
        return f"rollout:{{{self.model}}}:quarantine"

    def traffic(self, tick: int) -> str:
        """What was answered in ten seconds, a hash of counts. Expires after an hour."""
        return f"rollout:{{{self.model}}}:traffic:{tick}"

    def timeline(self, resolution: str, start: int) -> str:
        """What was answered in a window of the timeline, a hash of at most 17 counts. Expires after it was shown.

        That is after 25 hours for five minutes, and after eight days for an hour.
        """
        return f"rollout:{{{self.model}}}:timeline:{resolution}:{start}"

    def drift(self, digest: str, arm: str, resolution: str, start: int) -> str:
        """What the rows of a bundle and an arm looked like in a window, a hash of sums by place in the sketch.

        Expires after an hour for a minute, four hours for five minutes, three days for an hour, 36 days for a
        day. Holds neither rows nor IDs, so that nothing in it is anybody's.
        """
        return f"rollout:{{{self.model}}}:drift:{digest[:16]}:{arm}:{resolution}:{start}"

    def drift_flush(self, flush: str) -> str:
        """Says that a worker's sums are added, so that they are not added twice. Expires after ten minutes."""
        return f"rollout:{{{self.model}}}:drift:flush:{flush}"

    @property
    def drift_report(self) -> str:
        """What the last look at the rows found, JSON. Expires after 36 days."""
        return f"rollout:{{{self.model}}}:drift:report"

    @property
    def drift_lock(self) -> str:
        """The worker that looks for drift. Expires after half a minute unless that worker renews it."""
        return f"rollout:{{{self.model}}}:drift:lock"

    def clients(self, revision: int, arm: str, outcome: str = "") -> str:
        """The clients of an arm of the trial, a HyperLogLog; with an outcome, those of whom it is known.

        Expires 30 days after the last one, or after its trial.
        """
        return f"rollout:{{{self.model}}}:clients:{revision}:{arm}{':' * bool(outcome)}{outcome}"

    def evidence(self, revision: int) -> str:
        """What is known of the arms under a revision, a hash of sums.

        Expires 30 days after the last one, or after its trial.

        Of each outcome, two numbers for each group of clients and arm: ``rollout.routing.groups`` bounds them.
        """
        return f"rollout:{{{self.model}}}:evidence:{revision}"

    @property
    def disagreements(self) -> str:
        """What people decided where both versions decide otherwise, a hash of JSON by item ID.

        Holds no more than people decide. Expires 30 days after the last one, or after its trial.
        """
        return f"rollout:{{{self.model}}}:disagreements"

    @property
    def reviewed(self) -> str:
        """What people decided on rows of both arms of a trial, a hash of JSON by item ID, kept like these."""
        return f"rollout:{{{self.model}}}:reviewed"

    @property
    def reviewed_until(self) -> str:
        """How far everything of the trial that came to review is decided, JSON. Expires after 30 days."""
        return f"rollout:{{{self.model}}}:reviewed:until"

    def other(self, item_id: str) -> str:
        """What the challenger made of a row that is in review for another reason, JSON. Expires as inputs do."""
        return f"rollout:{{{self.model}}}:other:{item_id}"

    def gathered(self, what: str) -> str:
        """The cursor up to which outcomes or decisions are in the evidence. Owned by the model's admins."""
        return f"rollout:{{{self.model}}}:gathered:{what}"

    @property
    def controller_lock(self) -> str:
        """The worker that looks after the trial. Expires after a few seconds unless that worker renews it."""
        return f"rollout:{{{self.model}}}:controller:lock"

    @property
    def looks(self) -> str:
        """What was known of trials over time, a stream of JSON. Holds 2,000 entries."""
        return f"rollout:{{{self.model}}}:looks"

    @property
    def counted(self) -> str:
        """What was counted of the trial at the last look, JSON: counters that go backwards are seen by it.

        Expires 30 days after the last look.
        """
        return f"rollout:{{{self.model}}}:counted"

    @property
    def acts_webhook(self) -> str:
        """The last revision that the webhook need not be told of. Owned, and locked, as ``webhook`` is."""
        return f"rollout:{{{self.model}}}:webhook:acts"

    @property
    def registry_lock(self) -> str:
        """The worker that sets aliases in MLflow's registry. Expires after half a minute unless it is renewed."""
        return f"rollout:{{{self.model}}}:registry:lock"

    @property
    def improvement(self) -> str:
        """What was made of reviewed labels, and how far the next version is, JSON. Owned by the model's admins.

        Holds the last 20 attempts, and a line for each export of labels.
        """
        return f"rollout:{{{self.model}}}:improvement"

    @property
    def improvement_lock(self) -> str:
        """Who makes the next version. Expires after ten seconds unless they renew it."""
        return f"rollout:{{{self.model}}}:improvement:lock"

    @property
    def confirmed(self) -> str:
        """A number that grows with each step that replicas must confirm: ``WAIT`` looks at what was written."""
        return f"rollout:{{{self.model}}}:confirmed"

    @property
    def workers(self) -> str:
        """The workers that serve this model, a hash of JSON. A worker that is silent for a minute is removed."""
        return f"rollout:{{{self.model}}}:workers"

    @property
    def review_policy(self) -> str:
        """How predictions are reviewed, JSON. Owned by the model's admins."""
        return f"rollout:{{{self.model}}}:reviews:policy"

    def reviews(self, place: str) -> str:
        """What is known of all review items together; ``rollout.review.queue`` says which places there are.

        Bounded by ROLLOUT_MAX_REVIEWS and ROLLOUT_MAX_REVIEW_BYTES while open; what was decided is owned by the
        model's admins.
        """
        return f"rollout:{{{self.model}}}:reviews:{place}"

    def answered(self, reviewer: str) -> str:
        """The IDs of open and escalated items that somebody has answered, a set: they are not offered to them.

        Holds no more than the queue does.
        """
        return f"rollout:{{{self.model}}}:reviews:answered:{reviewer}"

    def offered(self, minute: int) -> str:
        """How many predictions asked for a review within a minute, a hash by reason. Expires after three."""
        return f"rollout:{{{self.model}}}:reviews:offered:{minute}"

    def review(self, item_id: str, part: str = "") -> str:
        """One review item, JSON; its ``:inputs`` expire, its ``:work``, ``:events`` and ``:links`` stay.

        Predictions that are linked to an item are some, too, of which ``rollout.review.queue`` bounds the number.
        """
        return f"rollout:{{{self.model}}}:review:{item_id}{part}"

    def same_inputs(self, digest: str) -> str:
        """The ID of the item with these inputs of a client. Expires as the inputs do."""
        return f"rollout:{{{self.model}}}:same:{digest}"

    @property
    def access(self) -> str:
        """Who saw which review items, a stream. Holds about 100,000 entries, of 90 days at most."""
        return f"rollout:{{{self.model}}}:access"

    def prediction(self, item_id: str) -> str:
        """A prediction that waits for its outcome, JSON. Expires after the policy's ``outcome_days``."""
        return f"rollout:{{{self.model}}}:prediction:{item_id}"

    def outcome(self, item_id: str) -> str:
        """An outcome and what had been predicted, a hash of JSON. Expires after ``retention_days``."""
        return f"rollout:{{{self.model}}}:outcome:{item_id}"

    @property
    def outcomes(self) -> str:
        """The IDs of the outcomes, a sorted set by their last change, microseconds since 1970.

        Those older than the policy's ``retention_days`` go with each new one. With ``:waiting``, those whose
        prediction is not known, ROLLOUT_MAX_WAITING_OUTCOMES at most.
        """
        return f"rollout:{{{self.model}}}:outcomes"

    @property
    def webhook(self) -> str:
        """The cursor of the last decision that the webhook took. Owned by whoever configures the webhook.

        With ``:lock``, the worker that delivers; that expires after half a minute unless the worker renews it.
        """
        return f"rollout:{{{self.model}}}:webhook"

    def client(self, client_id: str) -> str:
        """Everything kept of a client, a sorted set of parts of key names by when they are gone, in milliseconds.

        Expires with what is kept longest. With ``:forgotten``, when the client was last forgotten; that expires
        as inputs do.
        """
        digest = hashlib.sha256(client_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return f"rollout:{{{self.model}}}:client:{digest}"


def failed_logins(address: str) -> str:
    """How many logins from an address failed, a number. Expires after a minute."""
    return f"rollout:{{console}}:failed:{address}"


def ended_session(session_id: str) -> str:
    """Says that somebody logged out of a session. Expires when its cookie does."""
    return f"rollout:{{console}}:ended:{session_id}"
