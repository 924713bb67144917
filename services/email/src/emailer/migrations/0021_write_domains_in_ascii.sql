-- An address with a local part beyond ASCII was stored with its domain in Unicode (`jörg@exämple.com`), and is now
-- compared with its domain in Punycode, like all others. So the rows from before are written anew: suppressions and
-- failures, which would not match any more, and recipients, by which mails are found. A domain that was accepted is in
-- the form that Punycode (RFC 3492) encodes, label by label. `recipients.domain` stays: it names the lane in which a
-- recipient waits already.
DO $$
DECLARE
    names text[];
    written text[] := '{}';
    name text;
    label text;
    encoded text;
    labels text[];
    n int; delta int; bias int; basic int; done int; code int; digit int; rest int; k int; threshold int;
BEGIN
    SELECT coalesce(array_agg(DISTINCT substring(address FROM '[^@]*$')), '{}') INTO names
    FROM (SELECT address FROM suppressions UNION SELECT address FROM address_failures UNION SELECT address FROM recipients) AS stored
    WHERE octet_length(substring(address FROM '[^@]*$')) <> char_length(substring(address FROM '[^@]*$'));

    FOREACH name IN ARRAY names LOOP
        labels := '{}';
        FOREACH label IN ARRAY string_to_array(lower(name), '.') LOOP
            encoded := regexp_replace(label, '[^ -~]', '', 'g');
            basic := char_length(encoded);
            done := basic;
            n := 128; delta := 0; bias := 72;
            IF basic = char_length(label) THEN
                labels := labels || label;
                CONTINUE;
            END IF;
            IF basic > 0 THEN
                encoded := encoded || '-';
            END IF;
            WHILE done < char_length(label) LOOP
                SELECT min(ascii(letter)) INTO code FROM regexp_split_to_table(label, '') AS letter WHERE ascii(letter) >= n;
                delta := delta + (code - n) * (done + 1);
                n := code;
                FOR i IN 1 .. char_length(label) LOOP
                    code := ascii(substr(label, i, 1));
                    IF code < n THEN
                        delta := delta + 1;
                    ELSIF code = n THEN
                        rest := delta;
                        k := 36;
                        LOOP
                            threshold := least(greatest(k - bias, 1), 26);
                            EXIT WHEN rest < threshold;
                            digit := threshold + (rest - threshold) % (36 - threshold);
                            encoded := encoded || chr(digit + CASE WHEN digit < 26 THEN 97 ELSE 22 END);
                            rest := (rest - threshold) / (36 - threshold);
                            k := k + 36;
                        END LOOP;
                        encoded := encoded || chr(rest + CASE WHEN rest < 26 THEN 97 ELSE 22 END);
                        delta := CASE WHEN done = basic THEN delta / 700 ELSE delta / 2 END;
                        delta := delta + delta / (done + 1);
                        k := 0;
                        WHILE delta > 455 LOOP
                            delta := delta / 35;
                            k := k + 36;
                        END LOOP;
                        bias := k + 36 * delta / (delta + 38);
                        delta := 0;
                        done := done + 1;
                    END IF;
                END LOOP;
                delta := delta + 1;
                n := n + 1;
            END LOOP;
            labels := labels || ('xn--' || encoded);
        END LOOP;
        written := written || array_to_string(labels, '.');
    END LOOP;

    UPDATE recipients SET address = substring(address FROM '^(.*@)') || renamed.written
    FROM unnest(names, written) AS renamed (name, written) WHERE substring(address FROM '[^@]*$') = renamed.name;

    -- What has been stored in the new form meanwhile counts; the older row says the same of the same address.
    INSERT INTO address_failures (owner_id, address, stream, email_id, kind, origin, at)
    SELECT owner_id, substring(address FROM '^(.*@)') || renamed.written, stream, email_id, kind, origin, at
    FROM address_failures
    JOIN unnest(names, written) AS renamed (name, written) ON substring(address FROM '[^@]*$') = renamed.name
    ON CONFLICT DO NOTHING;
    DELETE FROM address_failures WHERE substring(address FROM '[^@]*$') = ANY(names);

    UPDATE suppressions SET address = substring(address FROM '^(.*@)') || renamed.written
    FROM unnest(names, written) AS renamed (name, written)
    WHERE substring(address FROM '[^@]*$') = renamed.name AND NOT EXISTS (
        SELECT FROM suppressions AS other
        WHERE other.owner_id = suppressions.owner_id AND other.stream = suppressions.stream
            AND other.address = substring(suppressions.address FROM '^(.*@)') || renamed.written
    );
    DELETE FROM suppressions WHERE substring(address FROM '[^@]*$') = ANY(names);
END $$;
