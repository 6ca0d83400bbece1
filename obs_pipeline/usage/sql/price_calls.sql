-- Prices every call: what it cost at list, what it cost as far as we know, and whether the two agree.
--
-- Reads   calls            canonical events, and any further columns (they pass through)
--         rates            PriceBook.rates over the distinct (provider, model) of calls
--         bounds           PriceBook.bounds over the same
--         price_tolerance  one row: relative, absolute
-- Writes  the columns of calls, and list_cost, cost_bound, cost, cost_source, price_ratio, mispriced.
--
-- Times are UTC without a zone; an engine that thinks in zones must run with its session in UTC.
-- One count of two may be missing and is then 0; with neither, a call has no list cost, unless it failed: then 0.
-- Credits and corrections have no list cost. Counts from 10^13 up, and costs from 10^9 USD up, have none either.
-- Exact throughout. One factor of every product has more than 18 digits, because DuckDB would else compute in 18 and
-- overflow; every result has at most 38 by the rules of both engines, because Spark would else drop decimals.
with
price as (
    select
        provider,
        model,
        coalesce(valid_from, timestamp '0001-01-01 00:00:00') as valid_from,
        coalesce(valid_to, timestamp '9999-12-31 00:00:00') as valid_to,
        coalesce(day_second_from, 0) as day_second_from,
        coalesce(day_second_to, 86400) as day_second_to,
        coalesce(min_input_tokens, 0) as min_input_tokens,
        coalesce(max_input_tokens, 9223372036854775807) as max_input_tokens,
        cast(input_rate as decimal(19, 6)) as input_rate,
        cast(cache_read_rate as decimal(19, 6)) as cache_read_rate,
        cast(cache_write_rate as decimal(19, 6)) as cache_write_rate,
        cast(output_rate as decimal(19, 6)) as output_rate,
        cast(call_fee as decimal(12, 6)) as call_fee
    from rates
),
dearest as (
    select
        provider,
        model,
        cast(input_rate as decimal(19, 6)) as input_rate,
        cast(output_rate as decimal(19, 6)) as output_rate,
        cast(call_fee as decimal(12, 6)) as call_fee
    from bounds
),
listed as (
    select
        calls.*,
        case
            when calls.event_type <> 'usage' then null
            when calls.input_tokens is null and calls.output_tokens is null then
                case when calls.error_type is not null then cast(0 as decimal(18, 9)) end
            else
                try_cast(round(
                    cast(
                        -- The parts are cut to the whole, reads first, so that no term is negative.
                        try_cast(
                            coalesce(calls.input_tokens, 0)
                            - least(coalesce(calls.cache_read_tokens, 0), coalesce(calls.input_tokens, 0))
                            - least(
                                coalesce(calls.cache_write_tokens, 0),
                                coalesce(calls.input_tokens, 0)
                                - least(coalesce(calls.cache_read_tokens, 0), coalesce(calls.input_tokens, 0))
                            ) as decimal(13, 0)
                        ) * price.input_rate
                        + try_cast(
                            least(coalesce(calls.cache_read_tokens, 0), coalesce(calls.input_tokens, 0))
                            as decimal(13, 0)
                        ) * price.cache_read_rate
                        + try_cast(
                            least(
                                coalesce(calls.cache_write_tokens, 0),
                                coalesce(calls.input_tokens, 0)
                                - least(coalesce(calls.cache_read_tokens, 0), coalesce(calls.input_tokens, 0))
                            ) as decimal(13, 0)
                        ) * price.cache_write_rate
                        + try_cast(coalesce(calls.output_tokens, 0) as decimal(13, 0)) * price.output_rate
                        as decimal(27, 6)
                    ) * cast(0.000001 as decimal(7, 6))
                    + price.call_fee,
                    9
                ) as decimal(18, 9))
        end as list_cost,
        case
            when calls.event_type <> 'usage' or calls.reported_cost is not null then null
            when price.input_rate is not null then null
            when calls.input_tokens is null and calls.output_tokens is null then null
            else
                try_cast(round(
                    cast(
                        try_cast(coalesce(calls.input_tokens, 0) as decimal(13, 0)) * dearest.input_rate
                        + try_cast(coalesce(calls.output_tokens, 0) as decimal(13, 0)) * dearest.output_rate
                        as decimal(27, 6)
                    ) * cast(0.000001 as decimal(7, 6))
                    + dearest.call_fee,
                    9
                ) as decimal(18, 9))
        end as cost_bound
    from calls
    left join price
        on calls.provider is not distinct from price.provider
        and calls.model = price.model
        and calls.event_time >= price.valid_from
        and calls.event_time < price.valid_to
        and hour(calls.event_time) * 3600 + minute(calls.event_time) * 60 + second(calls.event_time)
            >= price.day_second_from
        and hour(calls.event_time) * 3600 + minute(calls.event_time) * 60 + second(calls.event_time)
            < price.day_second_to
        and coalesce(calls.input_tokens, 0) >= price.min_input_tokens
        and coalesce(calls.input_tokens, 0) < price.max_input_tokens
    left join dearest
        on calls.provider is not distinct from dearest.provider
        and calls.model is not distinct from dearest.model
)
select
    listed.*,
    coalesce(listed.reported_cost, listed.list_cost) as cost,
    case
        when listed.reported_cost is not null then 'reported'
        when listed.list_cost is not null then 'list'
        else 'unpriced'
    end as cost_source,
    case
        when listed.reported_cost > 0 and listed.list_cost > 0
            then cast(listed.reported_cost as double) / cast(listed.list_cost as double)
    end as price_ratio,
    coalesce(
        abs(listed.reported_cost - listed.list_cost)
        > greatest(cast(listed.list_cost as decimal(19, 9)) * price_tolerance.relative, price_tolerance.absolute),
        false
    ) as mispriced
from listed
cross join price_tolerance
