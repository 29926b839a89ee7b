-- What a shop keeps of two sellers on a marketplace: five tables, filled from the marketplace's API.
-- Evervec only reads them. It asks for three things: a unique key, a time of the last change, and an index on that time.
CREATE SCHEMA shop;

CREATE TABLE shop.products (
    id bigint PRIMARY KEY,
    seller_id text NOT NULL,
    name text NOT NULL,
    category text NOT NULL,
    description text NOT NULL,
    price numeric(10, 2) NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shop.orders (
    id bigint PRIMARY KEY,
    seller_id text NOT NULL,
    number text NOT NULL,
    placed_at timestamptz NOT NULL,
    -- a template fills in and computes nothing: the day is a column of its own
    placed_on date GENERATED ALWAYS AS ((placed_at AT TIME ZONE 'UTC')::date) STORED,
    product text NOT NULL,
    pieces integer NOT NULL,
    amount numeric(10, 2) NOT NULL,
    city text NOT NULL,
    status text NOT NULL,
    note text,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shop.stocks (
    id bigint PRIMARY KEY,
    seller_id text NOT NULL,
    product_id bigint NOT NULL REFERENCES shop.products,
    product text NOT NULL,
    warehouse text NOT NULL,
    pieces integer NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shop.reviews (
    id bigint PRIMARY KEY,
    seller_id text NOT NULL,
    product text NOT NULL,
    author text NOT NULL,
    stars integer NOT NULL,
    body text NOT NULL,
    answer text,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shop.sales (
    id bigint PRIMARY KEY,
    seller_id text NOT NULL,
    day date NOT NULL,
    product text NOT NULL,
    pieces integer NOT NULL,
    revenue numeric(10, 2) NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['products', 'orders', 'stocks', 'reviews', 'sales'] LOOP
        EXECUTE format('CREATE INDEX ON shop.%I (updated_at)', name);
        EXECUTE format('CREATE INDEX ON shop.%I (seller_id)', name);
    END LOOP;
END
$$;
