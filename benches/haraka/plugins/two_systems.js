'use strict'
// Haraka at the benchmark's job: recipients in the list go to sink A, all others to sink B. Forwarded before the
// sender's final reply, as Haraka's queue/smtp_forward does it, which knows only one next hop a transaction.
//
// config/two_systems.json: { list: FILE, a: { host, port }, b: { host, port } }; the list has an address a line.

const fs = require('node:fs')

exports.register = function () {
    this.smtp_client = this.haraka_require('smtp_client')
    this.sinks = this.config.get('two_systems.json')
    this.list = new Set(fs.readFileSync(this.sinks.list, 'utf8').split('\n'))
    this.register_hook('rcpt', 'take')
    this.register_hook('queue', 'forward')
}

exports.take = function (next, connection, params) {
    next(params[0].host.toLowerCase() === 'contoso.test' ? OK : DENY)
}

exports.forward = function (next, connection) {
    const ways = { a: [], b: [] }
    for (const rcpt of connection.transaction.rcpt_to) {
        const known = this.list.has(rcpt.address.toLowerCase())
        ways[known ? 'a' : 'b'].push(rcpt)
    }
    const branches = Object.keys(ways).filter((way) => ways[way].length > 0)
    const one = () => {
        const way = branches.shift()
        if (!way) return next(OK)
        this.send(connection, this.sinks[way], ways[way], (code, text) => (code === OK ? one() : next(code, text)))
    }
    one()
}

// One transaction with one sink; `done` gets OK or a refusal.
exports.send = function (connection, sink, recipients, done) {
    this.smtp_client.get_client_plugin(this, connection, { ...sink }, (error, client) => {
        if (error) return done(DENYSOFT, error.message)
        client.next = (code, text) => done(code ?? DENYSOFT, text)
        let sent = 0
        const recipient = () => {
            if (sent === recipients.length) return client.send_command('DATA')
            client.send_command('RCPT', `TO:${recipients[sent++].format()}`)
        }
        client.on('mail', recipient)
        client.on('rcpt', recipient)
        client.on('data', () => client.start_data(connection.transaction.message_stream))
        const finish = (code, text) => {
            client.call_next(code, text)
            client.release()
        }
        client.on('dot', () => finish(OK, client.response))
        client.on('bad_code', (code, text) => finish(DENYSOFT, text))
    })
}
