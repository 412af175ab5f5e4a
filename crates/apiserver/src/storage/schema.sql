CREATE TABLE event (
    rv        INTEGER PRIMARY KEY,
    resource  TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    type      INTEGER NOT NULL,
    object    BLOB NOT NULL
);
CREATE TABLE current (
    resource  TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    rv        INTEGER NOT NULL UNIQUE REFERENCES event (rv),
    PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE compaction (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    rv   INTEGER NOT NULL
);
INSERT INTO compaction (only, rv) VALUES (1, 0);
