-- An effect that is done twice shows in the log.
CREATE SCHEMA witness;
CREATE TABLE witness.log (tag text, what text);
CREATE FUNCTION witness.saw() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
  one record;
BEGIN
  FOR one IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
    INSERT INTO witness.log VALUES (one.command_tag, one.object_identity);
  END LOOP;
END $$;
CREATE EVENT TRIGGER witness ON ddl_command_end EXECUTE FUNCTION witness.saw();
